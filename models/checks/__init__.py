"""What holds exactly, one file a paper: run by `outpace models check` and by the tests."""
