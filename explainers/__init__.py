"""Explanations: why a recorded decision came out as it did, bound to the model that decided.

Five words explain the package:

- **request**: one recorded decision with the digests of model, baseline and registration (`base`).
- **plan → answers → solve**: a method names the model rows it wants, is given the answers, and solves; both ends are
  pure and run in a **worker** process without network (`trees`, `worker`).
- **attribution**: what each feature adds to the model's output, compared with the baseline; **factor**: several
  features told as one; **reason**: a factor that counted against the person, in words (`reasons`).
- **binding**: how sure we are that the explained model is the one that answered (`binding`).
- **pool**: the workers as the keeper sees them; a job survives a dead worker (`pool`, `jobs`, `messages`).

Data takes this way: request → frame → worker (store → model, baseline, registration) → attributions → factors →
reasons, quality → body (bytes) → result. Importing this package, `base`, `messages`, `jobs`, `reasons`, `quality` or
`pool` loads neither numpy nor shap; only a worker and the registry do.
"""
