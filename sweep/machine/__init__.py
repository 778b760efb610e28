"""The devices of a machine and how workers share them."""
