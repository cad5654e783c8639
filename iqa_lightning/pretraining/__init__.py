"""Better starts than ImageNet: recipes that learn from photographs, and a probe that compares
starts.
"""
