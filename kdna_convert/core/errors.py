"""Errors that speak to the user: one sentence, a code, a way out. Everything else is our bug and keeps its traceback.

Codes: KD1xx why a layer is not converted, KD2xx recipe, KD3xx model and checkpoint, KD4xx data, KD5xx plan and
budget, KD6xx folder, KD7xx numerics, KD8xx guard. `kdna explain CODE` prints the entry of CODES.
"""

from __future__ import annotations


class KdnaError(Exception):
    """The user's input cannot be used. `code` names the entry of CODES; the CLI prints one line and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[KdnaError], tuple[str, str]]:
        """An error goes from one process to another."""
        return type(self), (self.code, self.message)


class RecipeError(KdnaError):
    """A recipe is wrong: the message holds its line and key."""


class ModelError(KdnaError):
    """A model cannot be built."""


class CheckpointError(KdnaError):
    """Weights cannot be read or do not fit."""


class DataError(KdnaError):
    """Images cannot be read."""


class PlanError(KdnaError):
    """A plan or a budget cannot be met."""


class FolderError(KdnaError):
    """A converted folder is missing, damaged or in the way."""


class NumericsError(KdnaError):
    """NaN or infinity in weights, activations or a fit: the message names the layer."""


class GuardError(KdnaError):
    """A guard on accuracy or divergence failed."""

    exit_code = 3


CODES: dict[str, str] = {
    # why a layer is not converted
    "KD101": "The recipe excludes this layer. The stem, the classifier, depthwise and Linear layers are excluded by default; name them under `include`.",
    "KD102": "No rule of the recipe matches this layer.",
    "KD103": "Depthwise: an adapter would cost more than it saves. Include it by name to convert it all the same.",
    "KD104": "Transposed convolution: its kernel mixes channels in the other order; not converted.",
    "KD105": "The layer computes its weight already (a parametrization, weight norm or spectral norm). Remove that first.",
    "KD106": "The weight is shared with another layer of the model, so changing one would change the other.",
    "KD107": "The forward pass never reaches this layer, so there is nothing to calibrate on.",
    "KD108": "The layer's second moments need more memory than --moments-memory allows. Raise it.",
    "KD109": "No other layer can share with this one under the chosen scheme.",
    "KD110": "Converting this layer would not make it smaller at any rank.",
    "KD111": "Not a floating-point weight (quantised or lazy): convert before quantising.",
    "KD112": "The layer is used with inputs of a form that patches cannot be unfolded from.",
    "KD113": "The routing cannot be placed on this layer.",
    "KD114": "The plan keeps this layer as it is: under this budget, parameters spent elsewhere would lose more.",
    "KD115": "The recipe keeps this layer dense: it shares nothing, but a codec may still store it in fewer bytes.",
    "KD116": "The family's kernels are no mixings of a list of directions, of which a part could stand alone: it is not cut.",
    "KD117": "Folded to an ordinary kernel when the routing was frozen.",
    # why a repair step leaves a layer, or all of them, as they are
    "KD121": "Grouped or depthwise: its kernel is not one least-squares problem, so that it is not refitted.",
    "KD122": "The layer runs more than once, or in no block that takes and gives one tensor.",
    "KD123": "The layer changes its stored weight in its own forward pass, so that it is not refitted.",
    "KD124": "The net has no batch normalisation to correct.",
    "KD125": "The layer's patches are too long to collect their moments once more.",
    "KD126": "Too few calibration images to estimate the statistics of normalisations anew.",
    "KD127": "No images were held back, so that no repair step could be judged. Pass --data, and keep calibration.heldout above 0.",
    # why a routing leaves a layer as it is
    "KD131": "The routing gives every image a kernel of its own, which only an ordinary convolution runs: not a Linear layer, nor a class that changes its weight as it runs. Exclude the layer, or leave out what asks for such kernels (`taps`, `spatial`).",
    "KD132": "The routing splits the layer's filters, which a grouped convolution has in groups.",
    "KD133": "Fewer layers of this shape than the routing has experts to share. Ask for fewer `kernels`, or `experts: own`.",
    "KD135": "`local` gives each weight a factor by its input channel; a grouped or depthwise kernel sees only some of these. Turn `local` off.",
    "KD137": "The routing dymn routes inverted-residual blocks, whose convolutions are two-dimensional and pointwise or depthwise. Exclude the layer from the routing.",
    # recipe
    "KD201": "The recipe file cannot be read or is not YAML.",
    "KD202": "The recipe has a key that does not exist.",
    "KD203": "A value of the recipe has the wrong type or lies outside its limits.",
    "KD204": "A layer pattern of the recipe matches no layer of this model.",
    "KD205": "Two rules of the recipe claim the same layer with equal precedence.",
    "KD206": "No bundled recipe of that name.",
    "KD207": "A rank is outside what the family's shapes allow.",
    "KD208": "A setting of the fine-tune is not one that can be used.",
    # model and checkpoint
    "KD301": "No model of that name.",
    "KD302": "The model could not be built: its factory is missing, failed or returned no nn.Module.",
    "KD303": "The checkpoint's keys or shapes do not match the model.",
    "KD304": "The checkpoint cannot be read: truncated, not a checkpoint, or it asks to run code.",
    "KD305": "Pretrained weights could not be fetched.",
    "KD306": "The model has no layer that can be converted.",
    "KD307": "The model's forward pass failed on an input of its own size.",
    "KD308": "The model does not return one row of logits per image, so two nets cannot be compared by it.",
    "KD309": "The device is not one that this machine has.",
    "KD310": "The net has no stages, or no Linear classifier, that its parts could answer by on their own.",
    "KD311": "The teacher answers another question than the net: other classes, or images normalised otherwise.",
    "KD312": "The net could not be written as ONNX: a library is missing, or the graph is not the net.",
    # data
    "KD401": "The data folder does not exist or holds no readable image.",
    "KD402": "The data's classes do not match the model's outputs.",
    "KD403": "The data has no labels, and this command needs them.",
    "KD404": "The class map cannot be read.",
    "KD405": "Too few calibration images.",
    "KD406": "An input setting (size, mean, std, crop or interpolation) is not one that images can be brought to.",
    "KD407": "A stream can only be read from its beginning, and these images do not fit into memory.",
    "KD408": "A batch cannot be divided among the processes.",
    "KD409": "The routing's `frames` say how many frames a clip has, and a batch must be whole clips, frame after frame. Pass a batch size that is a multiple of it.",
    "KD410": "The command was launched as several processes, and is one.",
    # plan and budget
    "KD501": "The budget cannot be met: even the smallest plan is larger.",
    "KD502": "The plan file is not valid.",
    "KD503": "The plan does not fit this model.",
    "KD504": "No budget was given, and the recipe names no rank.",
    "KD505": "The database was built for another model, recipe or data.",
    "KD506": "A size could not be read.",
    "KD507": "Nothing of the folder can be cut: its schemes have no directions to leave out.",
    "KD508": "`kdna compare` knows no peer of that name.",
    "KD509": "The folder is no larger than that as it is.",
    # folder
    "KD601": "The output folder exists already.",
    "KD602": "Not a folder written by kdna.",
    "KD603": "A file of the folder is damaged: its contents do not match the folder's own record.",
    "KD604": "The folder could not be written; nothing was left behind.",
    "KD605": "The folder was written by a newer version of kdna.",
    "KD606": "A routing that depends on the input cannot be merged into an ordinary weight.",
    "KD607": "The original model cannot be rebuilt or has changed since the conversion.",
    "KD608": "Coded tensors are cut short or altered: they are refused, not decoded to something else.",
    "KD609": "The weights have changed since they were coded. Code them again.",
    "KD610": "What a stopped fine-tune left belongs to another run.",
    # numerics
    "KD701": "NaN or infinity in a weight.",
    "KD702": "NaN or infinity in a layer's activations.",
    "KD703": "A fit did not stay finite.",
    "KD704": "A number is too large for the codec.",
    # guard
    "KD801": "The result moved further from the original than the guard allows.",
    "KD802": "A fine-tune did not stay finite, at half the rate and at a quarter of it.",
}
