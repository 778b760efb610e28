"""Tables of points, validated and ready to fit."""
