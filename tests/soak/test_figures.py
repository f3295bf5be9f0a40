"""Figures tell what grows from what moves."""

import unittest

from figures import Figures


class Told:
    """A mesh whose one process had these figures, one for each second of 90."""

    watched = {"one": 1}

    @staticmethod
    def problems(memory=lambda at: 10_000, descriptors=lambda at: 20, tasks=lambda at: 5):
        figures = Figures(Told)
        figures.samples["one"] = [(at, memory(at), descriptors(at), 3, tasks(at)) for at in range(90)]
        return figures.problems(90)


class Growth(unittest.TestCase):
    def test_what_stays_or_moves_about_is_flat(self):
        self.assertEqual(Told.problems(), [])
        self.assertEqual(Told.problems(memory=lambda at: 5_000 + 50 * min(at, 30)), [], "the warm-up may grow")
        self.assertEqual(Told.problems(memory=lambda at: 10_000 + 2_000 * (at % 7), descriptors=lambda at: 20 + at % 11), [])

    def test_what_grows_is_told(self):
        self.assertEqual(Told.problems(memory=lambda at: 10_000 + 100 * at), ["one: memory grew from 13950 to 17950 KiB"])
        self.assertIn("one: descriptors grew from", Told.problems(descriptors=lambda at: 20 + at)[0])
        self.assertIn("one: tasks grew from", Told.problems(tasks=lambda at: at)[0])


if __name__ == "__main__":
    unittest.main()
