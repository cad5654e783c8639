"""Using what was learnt: scores of new images, the model as one file, and whether new images are
like what was learnt. Nothing at the top of these modules needs Hydra, Lightning or wandb.
"""
