"""One audit: spec in, record out. The only place where data, attack, encoder and probe meet, and the referee."""
