"""`outpace serve`: one pipeline behind the image API that clients speak, a dial for each request.

Strangers' requests share a batch, and each gets the picture that it would have had alone: what is computed is decided
sample by sample. FastAPI speaks HTTP (app.py), Ray Serve keeps the replicas (replicas.py); ours is what a request may
ask for (orders.py), what a quality means (tiers.py), who shares a batch (batches.py) and what comes of it (engine.py).
"""

from __future__ import annotations
