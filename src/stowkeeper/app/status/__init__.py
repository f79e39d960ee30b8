"""How an archive and its servers are now: what `stowkeeper status` shows."""
