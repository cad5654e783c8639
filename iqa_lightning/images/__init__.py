"""Images: what is decoded and how, caches of decoded pixels, crops and windows, degradations."""
