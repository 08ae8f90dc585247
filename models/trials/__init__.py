"""Papers' claims tried in small, one file a paper; what came out is in results/."""
