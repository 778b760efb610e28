"""The devices of this machine and how workers share them."""
