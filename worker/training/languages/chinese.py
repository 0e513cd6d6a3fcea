"""Chinese, in simplified characters: no spaces, a measure word for each noun, the place first."""

from worker.training.scenes import Scene, Shape

KINDS = {
    "circle": ("个", "圆形"),
    "square": ("个", "正方形"),
    "triangle": ("个", "三角形"),
    "star": ("颗", "五角星"),
    "cross": ("个", "十字形"),
    "ring": ("个", "圆环"),
}
"""The measure word that counts it, and the noun."""
SIZES = {"small": "小", "large": "大"}
COLOURS = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "purple": "紫色",
    "orange": "橙色",
    "cyan": "青色",
    "pink": "粉色",
}
BACKGROUNDS = {"white": "白色", "gray": "灰色", "black": "黑色", "beige": "米色"}
RELATIONS = {"left of": "左边", "above": "上方"}


def caption(scene: Scene) -> str:
    """ "白色背景上，一个小的红色圆形在一个大的蓝色正方形的左边".

    That a shape is there is said with 有: "白色背景上有一个小的红色圆形"; where it is, with 在.
    """
    said = [phrase(shape) for shape in scene.shapes]
    ground = f"{BACKGROUNDS[scene.background]}背景上"
    if scene.relation is None:
        return f"{ground}有{said[0]}"
    return f"{ground}，{said[0]}在{said[1]}的{RELATIONS[scene.relation]}"


def phrase(shape: Shape) -> str:
    """A shape: "一个小的红色圆形"."""
    measure, noun = KINDS[shape.kind]
    return f"一{measure}{SIZES[shape.size]}的{COLOURS[shape.colour]}{noun}"
