"""From a persona, a scenario and a template to the messages that are sent."""
