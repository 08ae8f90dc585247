"""Who takes part in a comparison, and the study that they make up."""
