"""What the terminal says of the flicker of clips: a line for each of a few, one line for many."""

from sonogravity.reporting.clips import describe_flicker


def test_a_line_per_clip():
    entry = {"frames": 5, "flicker": 0.0125, "flicker_n": 4}
    assert describe_flicker({}) == []
    assert describe_flicker({"a": entry, "b": entry | {"true_flicker": 0.01}}) == [
        "flicker of a: 0.01250; 4 pairs of frames",
        "flicker of b: 0.01250 (of the truth 0.01000); 4 pairs of frames",
    ]


def test_of_many_clips_the_mean_and_the_highest():
    clips = {
        f"c{k}": {"frames": 2, "flicker": k / 100, "flicker_n": 1, "flicker_without_smoothing": 0.5} for k in range(8)
    }
    clips["c0"]["true_flicker"] = 0.1
    assert describe_flicker(clips) == [
        "flicker, mean of 8 clips: 0.03500 (without smoothing 0.50000); highest: c7 0.07000, c6 0.06000, c5 0.05000"
    ]
