"""Storage commitment (PS3.4 Annex J, PS3.18 chapter 13), as provider and as user."""
