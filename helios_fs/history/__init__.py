"""History: what is done with whole trees: taken in, compared, written out, brought back. Never how it is asked for."""
