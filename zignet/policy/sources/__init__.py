"""Those who know about keys. Each is loaded only where a configuration names it."""
