"""Errors that a user can act on: one sentence, a code, a way out. Any other exception is a bug and keeps its traceback.

Codes: KD1xx why a layer is not converted, KD2xx recipe, KD3xx model and checkpoint, KD4xx data, KD5xx plan and
budget, KD6xx folder, KD7xx numerics, KD8xx guard. `kdna explain CODE` prints the entry of CODES.
"""

from __future__ import annotations

from typing import Any

from .shown import shown


class KdnaError(Exception):
    """The user's input cannot be used. The CLI prints one line and exits with `exit_code`.

    Attributes:
        code: A key of CODES.
        message: What is wrong and the way out, in one line.
    """

    exit_code = 2

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = shown(message)  # it names what files hold
        super().__init__(f"{code}: {self.message}")

    def __reduce__(self) -> tuple[type[KdnaError], tuple[str, str]]:
        """Picklable, so that worker processes can raise it."""
        return type(self), (self.code, self.message)


def reason_of(error: Any) -> str:
    """What pydantic's first error says, without its own words for the kind of error. Begins in lower case."""
    text: str = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return text[:1].lower() + text[1:]


class RecipeError(KdnaError):
    """A recipe is wrong. The message names the line and the key."""


class ModelError(KdnaError):
    """A model cannot be built or used."""


class CheckpointError(KdnaError):
    """Weights cannot be read, or do not fit the model."""


class DataError(KdnaError):
    """Images cannot be read or used."""


class PlanError(KdnaError):
    """A plan or a budget cannot be used."""


class FolderError(KdnaError):
    """A converted folder is missing or damaged, or a place to write to is taken."""


class NumericsError(KdnaError):
    """NaN or infinity in weights, activations or a fit. The message names the layer."""


class GuardError(KdnaError):
    """A limit on the loss of accuracy or on the divergence is exceeded."""

    exit_code = 3


def cause(error: BaseException) -> str:
    """The first line of an exception, with its type, for a one-line message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:240].removesuffix(": ")


CODES: dict[str, str] = {
    # why a layer is not converted
    "KD101": "The recipe excludes this layer. By default the first convolution, the classifier, depthwise and Linear layers are excluded. Add the layer to `include` to convert it.",
    "KD102": "No rule of the recipe matches this layer. Add a rule for it, or set a scheme for all layers.",
    "KD103": "Depthwise convolution: an adapter costs more than it saves. Add the layer to `include` to convert it anyway.",
    "KD104": "Transposed convolutions are not supported: their kernels have the input channels first. The layer keeps its weight.",
    "KD105": "The layer already computes its weight (a parametrization, weight norm or spectral norm, or a class that clamps, normalizes or quantizes it). Remove that before converting, or exclude the layer.",
    "KD106": "The layer shares its weight with another layer of the model: converting one would change both. Untie the weights, or exclude both layers.",
    "KD107": "The forward pass does not run this layer, so it cannot be calibrated. Exclude it.",
    "KD108": "The layer's second moments need more memory than the limit. Raise --moments-memory, or exclude the layer.",
    "KD109": "No other layer can share with this one under the chosen scheme. Choose another scheme for it, or exclude it.",
    "KD110": "The layer cannot be made smaller at any rank. It keeps its weight.",
    "KD111": "The weight is not floating point (quantized, or not initialized yet). Convert before quantizing.",
    "KD112": "The layer's input has a form that cannot be unfolded into patches. Exclude the layer.",
    "KD113": "The routing cannot be added to this layer. Exclude the layer from the routing.",
    "KD114": "The plan keeps this layer dense: under this budget, its parameters reduce the error more than parameters elsewhere. A smaller budget converts more layers.",
    "KD115": "The recipe keeps this layer dense: it shares nothing. A codec may still store it in fewer bytes.",
    "KD116": "The family was not cut: its scheme has no ordered directions to drop. Convert the original to that size instead.",
    "KD117": "The layer was folded into an ordinary kernel when the routing was frozen.",
    "KD118": "No gradient of the loss reaches the layers: the net has no backward pass, or no outputs of its task. The layers' relative errors then count alike.",
    "KD119": "The net takes one image at a time. It is calibrated and measured with batches of one image.",
    "KD120": "The convolution runs outside of any layer: in scripted or traced code, or as a function of a parameter. Pass the net before it is scripted, or use nn.Conv2d.",
    # why a repair step skips a layer, or does nothing
    "KD121": "Not refitted: a grouped convolution is not a single least-squares problem. Other repair steps may still correct its normalization.",
    "KD122": "Skipped: the layer runs more than once, or its block does not take and return one tensor.",
    "KD123": "Not refitted: the layer changes its stored weight in its own forward pass.",
    "KD124": "Skipped: the net has no batch normalization to correct.",
    "KD125": "Skipped: the layer's patches are too long to collect their second moments again.",
    "KD126": "Skipped: too few calibration images to estimate normalization statistics. Raise calibration.images.",
    "KD127": "No repair: no images were held out to judge the steps. Pass --data, and keep calibration.heldout above 0.",
    "KD128": "Not refitted: the layer's input is constant on the calibration images (zero, for example), so that it determines no kernel. The layer keeps the kernel that it has.",
    "KD129": "Skipped: the net has no layer that this repair step can change. Leave the step out of the recipe.",
    "KD145": "Not reached: the repair stopped at its time limit. Raise `repair_time`, or leave it out.",
    "KD146": "Not reconstructed: the block takes so many multiply-adds per image that the limit of this step allows only a few iterations. Leave the step out of the recipe, or fine-tune the net.",
    "KD147": "Skipped: the layer reads regions that each net proposes itself, so that its inputs in the two nets do not match.",
    # why a layer is not converted, found when its family is fitted
    "KD130": "The layer keeps its weight: no fit of its family is finite on the calibration images, since its activations vanish or overflow. Check the normalization of the images (--mean, --std), or exclude the layer.",
    # why a routing skips a layer
    "KD131": "The routing gives each image its own kernel, which needs an ordinary convolution. Exclude Linear layers and classes that change their weight as they run, or turn off the options that need such kernels (`taps`, `spatial`).",
    "KD132": "The routing splits the layer's filters, which a grouped convolution does not allow. Exclude the layer from the routing.",
    "KD133": "Fewer layers have this shape than the routing needs for its shared experts. Ask for fewer `kernels`, or set `experts: own`.",
    "KD135": "`local` scales each weight by its input channel, and a grouped or depthwise kernel sees only some of the channels. Turn `local` off.",
    "KD137": "The routing dymn supports inverted-residual blocks only, with two-dimensional pointwise and depthwise convolutions. Exclude the layer from the routing.",
    # why `factor` folds a layer
    "KD141": "Folded instead of factored: the layer's scheme or class has no chain of plain layers, as with grouped and weight-standardizing layers.",
    "KD142": "Folded instead of factored: the chain takes more multiply-adds than the dense layer. Use a smaller rank.",
    "KD143": "Folded instead of factored: the layer is routed by its input. Freeze the routing first.",
    "KD144": "Folded instead of factored: the layer has hooks or a second parametrization, which a chain would lose. Remove them first.",
    # recipe
    "KD201": "The recipe file cannot be read, or is not YAML. Correct the line that the message names.",
    "KD202": "The recipe has an unknown key. `kdna recipe schema` lists the keys.",
    "KD203": "A value of the recipe has the wrong type or is out of range. `kdna recipe schema` lists what each key takes.",
    "KD204": "A layer pattern of the recipe matches no layer of this model. `kdna analyze` lists the layers.",
    "KD205": "Two rules of the recipe match the same layer with equal precedence. Make one of them more specific.",
    "KD206": "There is no bundled recipe of this name. `kdna recipe ls` lists them.",
    "KD207": "A rank is out of range for the shapes of its family. Use a value in the range that the message gives.",
    "KD208": "A fine-tune setting is invalid. Correct the setting that the message names.",
    "KD209": "The grid of a sweep cannot be read, or has an invalid key or value. Correct the line that the message names.",
    "KD210": "The grid of a sweep has no job, or more than are run unasked. Add models, recipes and budgets, or pass --yes.",
    # model and checkpoint
    "KD301": "There is no model of this name. `kdna ls models` lists the names.",
    "KD302": "The model cannot be built: its factory is missing, failed, or did not return an nn.Module.",
    "KD303": "The checkpoint's keys or shapes do not match the model. Give the model the arguments it was trained with, as in NAME(num_classes=10).",
    "KD304": "The checkpoint cannot be read: it is truncated, not a checkpoint, or asks to run code. Save the state dict alone, and pass that file.",
    "KD305": "Pretrained weights cannot be fetched. Pass --checkpoint FILE, or use random weights: NAME(pretrained=False).",
    "KD306": "The recipe converts no layer of this model. `kdna analyze` gives the reason for each layer.",
    "KD307": "The model's forward pass failed on an input of its own size. Check --input-size.",
    "KD308": "What the model returns does not fit the task, or changes between batches. Choose another --task, or pass --outputs.",
    "KD309": "This machine does not have the device. Use --device auto.",
    "KD310": "`subnets` needs a net with at least two stages and a Linear classifier. Leave it out.",
    "KD311": "The teacher does not fit the net: it has other classes or another normalization. Choose another teacher.",
    "KD312": "The net cannot be exported in this form: a library is missing, an operation is not supported, or the outputs differ.",
    "KD313": "What the net returns may belong to several tasks. Say which with --task; the message lists those that fit.",
    "KD314": "A function of --metric or --outputs cannot be loaded, raised an exception, or returned something else.",
    "KD315": "The export form does not take this option, or this value of it. The message lists what it takes.",
    "KD316": "The original does not score what the grid of the sweep says. Check its weights, and the size and normalization of its images.",
    # data
    "KD401": "DATA does not exist or holds no readable image. Pass a folder or .tar of images, a folder of .wav files, a timm dataset, or kdna:digits/train.",
    "KD402": "The classes of the data do not match the outputs of the net. Pass --class-map FILE.",
    "KD403": "The data has no labels, and this command needs them. Put the images in one folder per class.",
    "KD404": "The class map cannot be read. Write one class name per line.",
    "KD405": "There are too few images. Pass more, or lower the number that is asked for.",
    "KD406": "An input setting (size, mean, std, crop, interpolation or sample rate) is invalid, or tensors given as DATA have a shape or type that the net does not take. Correct what the message names.",
    "KD408": "A mini-batch cannot be divided among the processes. Choose a --batch-size that is a multiple of their number.",
    "KD409": "The routing's `frames` is the number of frames in a clip, and a batch must hold whole clips, frame after frame. Choose a batch size that is a multiple of it.",
    "KD410": "This command runs as one process, and several were launched. Run it without the launcher.",
    "KD411": "The image has more pixels than kdna decodes, 89 million. It is skipped and listed. Make it smaller.",
    "KD412": "Labels do not fit their images: a box outside, a mask or target of another size, a missing or unreadable file. Correct the file that the message names.",
    "KD420": "A shard of a stream is missing or torn, and the name of the stream asks for all of them. Restore the shard, or leave out |strict: then it is skipped and listed.",
    "KD421": "The processes of a launch do not find each other, or one of them ended. Start the command on every node, with the same address and number of processes; --resume continues a fine-tune.",
    # plan and budget
    "KD501": "The budget is too small: even the smallest plan is larger. Raise the budget, or include more layers.",
    "KD502": "The plan file is invalid. Correct the field that the message names, or plan again.",
    "KD503": "The plan does not fit this model: a layer is missing or has another shape. Plan again for this model.",
    "KD504": "No budget was given, and the recipe sets no rank. Pass --target-params 0.5, say, or set the rank in the recipe.",
    "KD505": "The database or the moments were made from another model, recipe, data or settings; the message says which. Delete the file, or name another.",
    "KD506": "A size is invalid, or two were given. Write it like 1200000, 1.2MB, 50% or 1/2.",
    "KD507": "No family of the folder can be cut: their schemes have no ordered directions. Convert the original to that size.",
    "KD508": "`kdna compare` has no tool of this name. Use one of those that the message lists.",
    "KD509": "The folder is not larger than the target already. Choose a smaller target.",
    "KD510": "The file of times is of another machine, or lacks a time of it. Run `kdna profile` on that machine, or pass --other-machine to plan for it.",
    "KD511": "The device profile does not exist, cannot be read, or has an invalid figure. Correct the key that the message names; `kdna ls boards` lists the bundled ones.",
    "KD512": "The nets cannot share tensors: they differ in a layer to convert, or the recipe or the folder has no shared tensors that stay the same. The message says which.",
    "KD513": "The page of `kdna explore` cannot be served: its extra is not installed, or the port is taken. The message says which.",
    "KD514": "The plan cannot keep this edit: the layer is not converted, has no such scheme in the recipe, or no such size. The message lists what it can have.",
    # folder
    "KD601": "The output exists already. Choose another place, or pass --force.",
    "KD602": "This is not a folder written by kdna. Pass one that `kdna convert` wrote.",
    "KD603": "The folder is damaged: a file does not match the folder's record. Restore the file, or convert again.",
    "KD604": "The output cannot be written. Nothing was left behind. Check the free space and the permissions.",
    "KD605": "The folder was written by a newer version of kdna. Update kdna.",
    "KD606": "A routing that depends on the input cannot be folded into a weight. Use the net unfolded, or run `kdna freeze` first.",
    "KD607": "The original model cannot be rebuilt, or has changed since the conversion. Build it and pass model=, or restore its checkpoint.",
    "KD608": "The coded tensors are truncated or altered, and are not decoded. Restore the file, or convert again.",
    "KD609": "The weights have changed since they were coded. Code them again.",
    "KD610": "The state of an unfinished fine-tune belongs to another run. Repeat the command that wrote it, or leave out --resume.",
    "KD611": "The folder names code from elsewhere, or a net too large for its tensors. Nothing was run. If you trust the folder, pass --trust-code (trust_code=True), or run `kdna trust` once. Or build the net and pass model=.",
    "KD612": "The Hugging Face Hub refuses the repository, or cannot be reached. Check its name (OWNER/NAME), your token (`hf auth login`) and the connection.",
    "KD613": "The update was made from another folder, or is damaged. Nothing was written. Pass the folder that `kdna diff` was given first.",
    "KD614": "Another sweep is running in the folder. Wait until it ends, or write to another folder.",
    "KD615": "The cluster of a sweep cannot be used: its extra is not installed, it cannot be reached or was lost, it refused a job, or no node is large enough. The message says which.",
    "KD616": "The job of a sweep was killed, or its worker or node was lost, more often than it is tried. Often the memory was too small: run fewer at once (--jobs, --memory).",
    # numerics
    "KD701": "A weight holds NaN or infinity. Use a checkpoint from before the training diverged.",
    "KD702": "A layer's activations hold NaN or infinity. Check the normalization of the images (--mean, --std) and the checkpoint.",
    "KD703": "A fit is not finite. Lower the rank, or calibrate on more images.",
    "KD704": "A number is too large for the codec. Use --codec bf16.",
    # guard
    "KD801": "The result is further from the original than the limit allows. Raise the limit or the budget, or exclude the layers that lose most.",
    "KD802": "The fine-tune diverged, also at half and at a quarter of the learning rate. Pass a lower --lr, or other images.",
}
