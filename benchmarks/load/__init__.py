"""What a server does under load: ``make bench-load``; each takes a minute or so."""
