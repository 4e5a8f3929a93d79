"""Three neighbours of EMTC from the seed documents, one readable file each; see README.md."""
