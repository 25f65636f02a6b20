"""Does the data help? Arms, a head on frozen states, intervals and correlations; arrays in, numbers out, no model."""
