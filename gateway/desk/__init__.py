"""The desk: the justification API and the console, two faces of the same queries.

The words: a *viewer* is somebody who is signed in, with *roles* that give *rights*; a *matter* is a regulator's scope;
a *grant* is a purpose (and ticket) as a viewer stated it once for a case; a *look* is one attempt to see something and
leaves one access entry; a *dossier* is all that is on record of one decision; a *document* is what of it one viewer may
see: the JSON twin as it is, and all that a template is given; the *card* is what may be said to the person.

The way of a request: `app` (headers, errors) → `callers` (who) → `api` or `pages` → `service` (may they, why, read,
scope, write the look) → `reading` (storage's queries) → `justification` (document) → JSON, or `views` (page).
Pure: roles, filters, states, sentences, timeline, justification, charts, content, trying, words, rendering's filters.
"""
