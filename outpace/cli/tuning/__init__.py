"""The work of `outpace tune`: candidates, what is measured of them, and what they are held against."""
