"""Stage 4: preferences, a reward, and a policy optimised for it; or verbose cloning."""
