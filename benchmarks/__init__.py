"""Speed, memory and quality, side by side with what a user would run instead; each a script of its own."""
