"""How well report triplets agree with the manual codes of Open-I."""
