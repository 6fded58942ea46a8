r"""Answers with the mark a careful reader gives them; written for this table, each for a way of saying it.

`INTEGERS`: the right answer is 204. `NUMBERS` and `PHRASES` bring theirs.
"""

RIGHT, WRONG, UNREAD = "right", "wrong", "unread"

INTEGERS: list[tuple[str, str]] = [
    # boxes
    (r"\boxed{204}", RIGHT), (r"Thus $m+n=\boxed{204}$.", RIGHT), (r"\[\boxed{204}\]", RIGHT),
    (r"$$\boxed{ 204 }$$", RIGHT), (r"\boxed{203}. No wait: \boxed{204}", RIGHT), (r"\boxed{m+n=204}", RIGHT),
    (r"\boxed{\text{204}}", RIGHT), (r"\boxed{\mathbf{204}}", RIGHT), (r"\boxed{204.}", RIGHT),
    (r"\boxed{204.0}", RIGHT), (r"\boxed{204^\circ}", RIGHT), (r"\boxed{204 \text{ minutes}}", RIGHT),
    (r"\boxed{204\text{ cm}^2}", RIGHT), (r"\boxed{204\%}", RIGHT), (r"\boxed{0204}", RIGHT),
    (r"\fbox{204}", RIGHT), (r"\boxed 204", RIGHT), (r"\boxed{\boxed{204}}", RIGHT), (r"\boxed{(204)}", RIGHT),
    (r"\boxed{204}, checked with 3 examples and 17 cases.", RIGHT), (r"\boxed{x = 204}", RIGHT),
    (r"I put the answer in \boxed{}: it is 204.", RIGHT), (r"\boxed{204}" + "\n\nHope this helps! 5 stars?", RIGHT),
    (r"\boxed{204}, that is, \boxed{204}", RIGHT), (r"\boxed{204", RIGHT), (r"\boxed{\$204}", RIGHT),
    (r"\boxed{3+201=204}", RIGHT), (r"\boxed{\displaystyle 204}", RIGHT),
    (r"\boxed{203}", WRONG), (r"\boxed{204}. On second thought \boxed{203}", WRONG), (r"\boxed{1204}", WRONG),
    (r"\boxed{2{,}204}", WRONG), (r"\boxed{-204}", WRONG), (r"\boxed{204.5}", WRONG), (r"\boxed{204x}", WRONG),
    (r"\boxed{\frac{204}{5}}", WRONG), (r"\boxed{204\pi}", WRONG), (r"\boxed{203, 204}", WRONG),
    (r"\boxed{203 \text{ or } 204}", WRONG), (r"\boxed{203}$ or $\boxed{204}", WRONG), (r"\boxed{2\cdot 102}", WRONG),
    (r"\boxed{\sqrt{204}}", WRONG), (r"\boxed{204^2}", WRONG), (r"\boxed{100+104}", WRONG), (r"\boxed{204/7}", WRONG),
    (r"The answer is 204, so \boxed{240}", WRONG), (r"\boxed{(203, 204)}", WRONG), (r"\boxed{204+x}", WRONG),
    (r"\boxed{x}", UNREAD), (r"\boxed{\text{none}}", UNREAD), (r"\boxed{}", UNREAD),
    # sentences
    ("204", RIGHT), ("The answer is 204.", RIGHT), ("**204**", RIGHT), ("Answer: 204", RIGHT), ("= 204", RIGHT),
    ("So the final answer is: $204$.", RIGHT), ("It takes Aya 204 minutes.", RIGHT), ("x=204", RIGHT),
    ("Therefore p + q = 5 + 199 = 204", RIGHT), ("We get 408/2 = 204", RIGHT), ("204!", RIGHT), ("(204)", RIGHT),
    ("First 3, then 7.\nIn the end: 204", RIGHT), ("204 is the answer.", RIGHT), ("`204`", RIGHT), ("204.", RIGHT),
    ("204 of the 2024 numbers work.", RIGHT), ("The answer to AIME 2024 Problem 2 is 204.", RIGHT),
    ("The answer is 204 (AIME 2024).", RIGHT), ("It is 204, as step 3 shows in Figure 2.", RIGHT),
    ("The answer is 204, not 203.", RIGHT), ("It isn't 203 but 204", RIGHT), ("It is 204 rather than 203.", RIGHT),
    ("203? No. 204.", RIGHT), ("The remainder is 204 mod 1000.", RIGHT), (r"N \equiv 204 \pmod{1000}", RIGHT),
    ("1. Set up.\n2. Solve: 204.\n3. Done and checked.", RIGHT), ("It is 204.\n\nThank you for this 3-step task.", RIGHT),
    ("204 = 12 × 17", RIGHT), ("The total is 204.00 exactly", RIGHT), ("so a^2 + b^2 = 204 with a_1 and a_2", RIGHT),
    ("203 or 204? Only 204 fits.\nSo it is 204.", RIGHT), ("It takes 3.4 hours, or 204 minutes.", RIGHT),
    ("The 2nd root gives 204 for the 3rd case", RIGHT), ("Angle: 204°", RIGHT), ("– 204 –", RIGHT), ("≈ 204", RIGHT),
    ("The answer is 203.", WRONG), ("203 or 204", WRONG), ("204 or 203", WRONG), ("either 203 or 204", WRONG),
    ("It is 203, or maybe 204.", WRONG), ("203/204", WRONG), ("203-204", WRONG), ("203 – 204", WRONG),
    ("between 203 and 204", WRONG), ("from 1 to 204", WRONG), ("**203** or **204**", WRONG), ("204 (or 203)", WRONG),
    ("$203$ or $204$", WRONG), ("202, 203, or 204", WRONG), ("It is 1204.", WRONG), ("12040", WRONG), ("-204", WRONG),
    ("−204", WRONG), ("204.5", WRONG), ("It is 0.204", WRONG), ("It is 204,000.", WRONG), ("1/204", WRONG),
    ("204 + 1000 = 1204", WRONG), ("The answer is 3.5.", WRONG), ("100 + 104", WRONG), ("204 and 205", WRONG),
    ("204 was my guess.\nIt is 205.", WRONG), ("either 204 or, less likely, 203", WRONG), ("2 × 102", WRONG),
    ("", UNREAD), ("I do not know.", UNREAD), ("two hundred and four", UNREAD), ("x204", UNREAD), ("204th", UNREAD),
    ("see a_{204}", UNREAD), ("10^204", UNREAD), ("It is not 204.", UNREAD), ("at 2:04", UNREAD), ("2e04", UNREAD),
    ("No answer.", UNREAD), ("#", UNREAD), (r"\boxed", UNREAD), ("Step 204", UNREAD), ("AIME 204", UNREAD),
]  # fmt: skip

NUMBERS: list[tuple[str, str, str]] = [
    ("She makes 9 * 2 = 18 dollars.\n#### 18", "18", RIGHT), ("#### 18", "18", RIGHT), ("####18", "18", RIGHT),
    ("#### $1,234.50", "1234.5", RIGHT), ("#### -10", "-10", RIGHT), ("#### −10", "-10", RIGHT),
    ("#### 18 eggs in 7 days", "18", RIGHT), ("#### The answer is 18", "18", RIGHT), ("#### **18**", "18", RIGHT),
    ("#### 17\nWait.\n#### 18", "18", RIGHT), ("#### 18\nI used 3 steps.", "18", RIGHT), ("####  18.", "18", RIGHT),
    ("#### 1. Count\nso 18\n#### 2. Check\nIt is 18", "18", RIGHT), ("#### Step 1\nThe answer is 18.", "18", RIGHT),
    (r"#### \$18", "18", RIGHT), ("#### 50%", "50", RIGHT), ("#### .5", "0.5", RIGHT), ("#### 3/4", "0.75", RIGHT),
    (r"\boxed{18}", "18", RIGHT), (r"\boxed{\$1{,}450{,}000}", "1450000", RIGHT), (r"\boxed{\frac{3}{4}}", "3/4", RIGHT),
    (r"\boxed{-\$10}", "-10", RIGHT), (r"\boxed{18\text{ dollars}}", "18", RIGHT), (r"\boxed{18.00}", "18", RIGHT),
    (r"\boxed{0.18}", "0.18", RIGHT), (r"\boxed{10\,800}", "10800", RIGHT), (r"\boxed{10,\!800}", "10800", RIGHT),
    ("It costs $18.", "18", RIGHT), ("It costs $18.00 in all.", "18", RIGHT), ("She has 65,960 left.", "65960", RIGHT),
    ("The profit is -$3.", "-3", RIGHT), ("The profit is $-3.", "-3", RIGHT), ("He runs 5km.", "5", RIGHT),
    ("He needs 2 1/2 cups", "2.5", RIGHT), ("It is 1.5 million.", "1500000", RIGHT), ("3 thousand", "3000", RIGHT),
    ("That is 12.5%", "12.5", RIGHT), ("€1,234", "1234", RIGHT), ("£99.99", "99.99", RIGHT), ("+7", "7", RIGHT),
    ("Each gets 1/2.", "0.5", RIGHT), ("He had 20 and gave 2 away.\nSo 18 remain.", "18", RIGHT), ("18 km/h", "18", RIGHT),
    ("At 3:30 she has 18", "18", RIGHT), ("Her 3rd box holds 18", "18", RIGHT), ("Total = 6 + 12 = 18", "18", RIGHT),
    ("He pays 18, not 20.", "18", RIGHT), ("18 - that is it", "18", RIGHT), ("**Answer:** 18 apples", "18", RIGHT),
    ("It is 18\n\nHope that helps!", "18", RIGHT), ("Area: 18 m^2", "18", RIGHT), ("Area: 18 cm²", "18", RIGHT),
    ("#### 19", "18", WRONG), ("#### 18 or 19", "18", WRONG), ("#### 18-19", "18", WRONG), ("#### 1.8", "18", WRONG),
    ("#### -18", "18", WRONG), ("#### 1,800", "18", WRONG), ("It is 18\n#### 20", "18", WRONG), ("18.5", "18", WRONG),
    ("It takes 18 to 20 days.", "20", WRONG), ("18,19", "19", WRONG), ("5 + 13", "13", WRONG), ("$18.50", "18", WRONG),
    ("18 thousand", "18", WRONG), ("9 × 2", "2", WRONG), ("He has 18 or so; well, 19.", "18", WRONG),
    (r"\boxed{18}\text{ or }\boxed{19}", "19", WRONG), (r"\boxed{9 \times 2}", "2", WRONG), ("3 1/2", "3", WRONG),
    (r"\boxed{18, 19}", "19", WRONG), ("1/18", "18", WRONG), ("-$18", "18", WRONG), ("33.33", "33.333", WRONG),
    ("", "18", UNREAD), ("eighteen", "18", UNREAD), ("####", "18", UNREAD), ("#### none", "18", UNREAD),
    ("I can't tell.", "18", UNREAD), ("18th", "18", UNREAD), ("B18", "18", UNREAD), (r"\boxed{n}", "18", UNREAD),
]  # fmt: skip

PHRASES: list[tuple[str, str, str]] = [
    ("B", "B", RIGHT), ("**B.**", "b", RIGHT), ("The answer is B", "B", RIGHT), ("Answer: (B)", "B", RIGHT),
    (r"So \boxed{\text{B}}", "B", RIGHT), ("Let me see.\nThe final answer is: Paris.", "Paris", RIGHT),
    ("yes!", "Yes", RIGHT), ("New  York", "new york", RIGHT), ("The answer is:\nParis", "Paris", RIGHT),
    ("A", "B", WRONG), ("The answer is A or B", "B", WRONG), ("It is B", "B", WRONG), ("", "B", UNREAD),
    ("...", "B", UNREAD), (r"\boxed{A}. The answer is B", "B", WRONG),
]  # fmt: skip
