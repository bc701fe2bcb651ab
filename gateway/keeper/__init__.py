"""The keeper: one process per host that carries what gateways recorded to where it can be read and proven.

The words: a *shard* is one writer's journal; a *feed* reads the decisions of one shard, each whole with its parts,
up to the watermark; a *consumer* has a feed or a tail and a place of its own (*shipping*, *extraction*, *schedule*);
*progress* is what the keeper's own entries say has been done; the *place* below which nothing is missing is all that
a restart needs.

The way data takes: gateways append → the keeper tails → shipping makes rows in ClickHouse, signs checkpoints and
projects; extraction makes entries of labels; schedule makes entries of explanations, both through the keeper's own
journal, which is tailed like any other (the only loop).

What is never done twice: whatever was done is an entry, and the entry names what it covers. So a keeper that is
killed anywhere reads its own journal and goes on.
"""
