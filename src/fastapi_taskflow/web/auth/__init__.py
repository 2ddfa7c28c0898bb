"""Who may come in: passwords, sessions, and the guard in front of every route."""
