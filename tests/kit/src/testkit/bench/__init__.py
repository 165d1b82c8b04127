"""`make bench`: what the parts cost, beside what they replace, measured in turns, on the machine at hand."""
