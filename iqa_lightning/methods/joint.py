"""Joint learning: the upper bounds that see the images of several tasks at once."""

from iqa_lightning.data.material import Material
from iqa_lightning.methods.finetune import SingleHead


class Joint(SingleHead):
    """One network and one head learn all data sets of the stream at once (JL of https://arxiv.org/abs/2102.09717).

    It walks the same stream: in the place of the first task it learns the union of all tasks, with the schedule of one
    task, and keeps its best epoch by the mean SRCC over all validation parts. The later tasks change nothing (one batch
    at a learning rate of 0 stands for each), so all rows of the matrices but the first (`start`) are equal: mSRCC is
    the joint model's mean over data sets, mPI the same by construction, mSI 1, forgetting and backward transfer 0.
    Only the last row is to be compared with other methods. All images of the stream count as stored.

    The official head has a bias, which no difference of two scores feels and no rank correlation sees; it is left out.
    """

    material = Material("all")


class JointSeen(SingleHead):
    """One network and one head go from task to task and learn all tasks so far at each (JL-CL of the same paper).

    The best epoch is chosen by the mean SRCC over the validation parts of all tasks so far.
    """

    material = Material("seen")
