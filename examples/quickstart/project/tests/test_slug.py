import unittest

from slug import slug


class SlugTest(unittest.TestCase):
    def test_a_space_becomes_a_hyphen(self):
        self.assertEqual(slug("Hello World"), "hello-world")

    def test_punctuation_and_blanks_leave_one_hyphen(self):
        self.assertEqual(slug("  Hello,   World! "), "hello-world")


if __name__ == "__main__":
    unittest.main()
