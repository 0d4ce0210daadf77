"""Errors for the user: a code and one sentence with a way out. Any other exception is a bug and keeps its traceback.

Codes: KD1xx why a layer is not converted, KD2xx recipe, KD3xx model and checkpoint, KD4xx data, KD5xx plan and
budget, KD6xx folder, KD7xx numerics, KD8xx guard. `kdna explain CODE` prints the entry of CODES.
"""

from __future__ import annotations


class KdnaError(Exception):
    """Unusable input. The CLI prints `message` as one line and exits with `exit_code`; `code` is a key of CODES."""

    exit_code = 2

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[KdnaError], tuple[str, str]]:
        """Picklable, so that worker processes can raise it."""
        return type(self), (self.code, self.message)


class RecipeError(KdnaError):
    """A recipe is invalid. The message names the line and the key."""


class ModelError(KdnaError):
    """A model cannot be built."""


class CheckpointError(KdnaError):
    """Weights cannot be read or do not match the model."""


class DataError(KdnaError):
    """Images cannot be read."""


class PlanError(KdnaError):
    """A plan is invalid, or a budget cannot be met."""


class FolderError(KdnaError):
    """A converted folder is missing, damaged or in the way."""


class NumericsError(KdnaError):
    """NaN or infinity in weights, activations or a fit. The message names the layer."""


class GuardError(KdnaError):
    """A guard on accuracy or divergence failed."""

    exit_code = 3


CODES: dict[str, str] = {
    # why a layer is skipped
    "KD101": "The recipe excludes this layer. The first convolution, the classifier, depthwise and Linear layers are excluded by default; add them to `include`.",
    "KD102": "No rule of the recipe matches this layer.",
    "KD103": "Depthwise: an adapter would cost more than it saves. Add the layer's name to `include` to convert it anyway.",
    "KD104": "Transposed convolution: the channels of its kernel are in the other order. Not supported.",
    "KD105": "The weight is already computed by a parametrization, weight norm or spectral norm. Remove it before the conversion.",
    "KD106": "The weight is shared with another layer of the model. Changing one would change the other.",
    "KD107": "The forward pass does not reach this layer, so it has no inputs to calibrate on.",
    "KD108": "The second moments of the layer need more memory than --moments-memory allows. Raise the limit.",
    "KD109": "No other layer can share kernels with this one under the chosen scheme.",
    "KD110": "Conversion would not make this layer smaller at any rank.",
    "KD111": "The weight is not floating-point (quantized or lazy). Convert before quantizing.",
    "KD112": "The inputs of the layer have a shape that cannot be unfolded into patches.",
    "KD113": "The routing cannot be placed on this layer.",
    "KD114": "The plan keeps this layer dense: under this budget, its parameters reduce the error more than parameters elsewhere.",
    "KD115": "The recipe keeps this layer dense. It shares no kernels, but a codec may still store it in fewer bytes.",
    "KD116": "The kernels of the family are not combinations of a list of directions, so the family cannot be reduced.",
    "KD117": "The layer became an ordinary kernel when the routing was frozen.",
    # why a repair step skips a layer, or all layers
    "KD121": "Grouped or depthwise: not refitted, because the layer is not a single least-squares problem.",
    "KD122": "The layer runs more than once, or is in no block that maps one tensor to one tensor.",
    "KD123": "The layer changes its stored weight in its forward pass, so it is not refitted.",
    "KD124": "The net has no batch normalization to correct.",
    "KD125": "The patches of the layer are too long to collect their moments again.",
    "KD126": "Too few calibration images to re-estimate the statistics of normalizations.",
    "KD127": "No images were held out, so no repair step could be evaluated. Pass --data and keep calibration.heldout above 0.",
    # why a routing skips a layer
    "KD131": "The routing gives every image its own kernel, which only an ordinary convolution can run: not a Linear layer, and not a class that changes its weight in the forward pass. Exclude the layer, or remove the options that ask for such kernels (`taps`, `spatial`).",
    "KD132": "The routing splits the filters of the layer, which a grouped convolution keeps in groups.",
    "KD133": "The routing shares more experts than there are layers of this shape. Ask for fewer `kernels`, or use `experts: own`.",
    "KD135": "`local` scales each weight by its input channel, but a grouped or depthwise kernel sees only some input channels. Turn `local` off.",
    "KD137": "The routing dymn supports inverted-residual blocks of two-dimensional pointwise and depthwise convolutions. Exclude the layer from the routing.",
    # recipe
    "KD201": "The recipe file cannot be read, or is not YAML.",
    "KD202": "The recipe has an unknown key.",
    "KD203": "A value in the recipe has the wrong type or is out of range.",
    "KD204": "A layer pattern in the recipe matches no layer of this model.",
    "KD205": "Two rules of equal precedence match the same layer.",
    "KD206": "There is no bundled recipe of this name.",
    "KD207": "A rank is out of the range that the shapes of the family allow.",
    "KD208": "A fine-tuning setting is invalid.",
    # model and checkpoint
    "KD301": "There is no model of this name.",
    "KD302": "The model could not be built: its factory is missing, failed or did not return an nn.Module.",
    "KD303": "The keys or shapes of the checkpoint do not match the model.",
    "KD304": "The checkpoint cannot be read: it is truncated, is not a checkpoint, or would run code.",
    "KD305": "The pretrained weights could not be downloaded.",
    "KD306": "The model has no layer that can be converted.",
    "KD307": "The forward pass of the model failed on an input of its own size.",
    "KD308": "The model does not return one row of logits per image, so two nets cannot be compared.",
    "KD309": "This machine does not have the device.",
    "KD310": "The net has no stages or no Linear classifier, which `subnets` needs.",
    "KD311": "The teacher does not match the net: its classes or its input normalization differ.",
    "KD312": "The net could not be exported to ONNX: a library is missing, or the graph does not compute what the net does.",
    # data
    "KD401": "The data does not exist or holds no readable image.",
    "KD402": "The classes of the data do not match the outputs of the model.",
    "KD403": "The data has no labels, but labels are required here.",
    "KD404": "The class map cannot be read.",
    "KD405": "Too few calibration images.",
    "KD406": "Images cannot be brought to an input setting (size, mean, std, crop or interpolation).",
    "KD407": "A stream can only be read from its beginning, and these images do not fit into memory.",
    "KD408": "A batch cannot be divided among the processes.",
    "KD409": "A batch must hold whole clips of `frames` consecutive frames. Pass a batch size that is a multiple of `frames`.",
    "KD410": "The command runs in one process, but several were launched.",
    # plan and budget
    "KD501": "The budget cannot be met: even the smallest plan is larger.",
    "KD502": "The plan file is invalid.",
    "KD503": "The plan does not match this model.",
    "KD504": "There is no budget, and the recipe names no rank.",
    "KD505": "The database was built for another model, recipe or data.",
    "KD506": "A size cannot be read.",
    "KD507": "The folder cannot be reduced: its schemes have no directions to remove.",
    "KD508": "`kdna compare` has no tool of this name.",
    "KD509": "The folder is already at most this large.",
    # folder
    "KD601": "The output already exists.",
    "KD602": "The folder was not written by kdna.",
    "KD603": "A file of the folder is damaged: its content does not match the recorded hash.",
    "KD604": "The folder could not be written. No partial output remains.",
    "KD605": "The folder was written by a newer version of kdna.",
    "KD606": "A routing that depends on the input cannot be merged into an ordinary weight.",
    "KD607": "The original model cannot be rebuilt, or has changed since the conversion.",
    "KD608": "The coded tensors are truncated or altered. They are not decoded.",
    "KD609": "The weights have changed since they were coded. Code them again.",
    "KD610": "The saved state belongs to another fine-tuning run.",
    # numerics
    "KD701": "NaN or infinity in a weight.",
    "KD702": "NaN or infinity in the activations of a layer.",
    "KD703": "A fit gave NaN or infinity.",
    "KD704": "A number is too large for the codec.",
    # guard
    "KD801": "The result is further from the original than the guard allows.",
    "KD802": "The loss of a fine-tune was not finite, also at half and at a quarter of the learning rate.",
}
