"""From a NetParameter to the steps of a net: rules, splits, shapes, shared parameters, gradients."""
