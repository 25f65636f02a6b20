"""Training SAEs in facviz and in other libraries on the same activations; each library in an environment of its own."""
