"""How long file to score takes on this machine: scenarios, stages, start, memory, and what got slower."""
