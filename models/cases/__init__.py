"""What is remembered of every model, one file a paper: outputs of small filled models, stored in remembered/."""
