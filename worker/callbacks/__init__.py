"""Results told to URLs of their submitters: signed, guarded, tried again for days, written down."""
