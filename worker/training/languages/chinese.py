"""Chinese, in simplified characters: no spaces, what describes before its noun, measure words.

A caption is at most 19 characters long: each is a token, and a caption has 20 by default, with the
one that ends it.
"""

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
BACKGROUNDS = {"white": "白底", "gray": "灰底", "black": "黑底", "beige": "米色底"}
RELATIONS = {"left of": "左边", "above": "上方"}


def caption(scene: Scene) -> str:
    """ "红色小圆形在蓝色大正方形左边，白底"; what is alone is counted: "一个红色小圆形，白底"."""
    first, *others = scene.shapes
    ground = BACKGROUNDS[scene.background]
    if scene.relation is None:
        measure, _ = KINDS[first.kind]
        return f"一{measure}{phrase(first)}，{ground}"
    return f"{phrase(first)}在{phrase(others[0])}{RELATIONS[scene.relation]}，{ground}"


def phrase(shape: Shape) -> str:
    """A shape: "红色小圆形"."""
    _, noun = KINDS[shape.kind]
    return f"{COLOURS[shape.colour]}{SIZES[shape.size]}{noun}"
