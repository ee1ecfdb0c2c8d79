"""What a model is trained on: made of the replies that were kept, with a card, as trainers want it, on the hub."""
