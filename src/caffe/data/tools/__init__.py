"""What the data commands do: convert data sets, inspect databases, compute statistics, write features."""
