"""Sequential design: the next runs that most narrow the answer for their FLOPs."""
