"""Events of a queue or a folder, turned into jobs for as long as they come: `captionq listen`."""
