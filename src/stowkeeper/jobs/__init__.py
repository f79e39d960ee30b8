"""Jobs: what is to be done after the answer, durably. The engine knows no kind of job."""
