"""A run in one file to send: what happened, in words, figures and examples.

`facts` gathers what the store says as plain data (which is the JSON form), `words` makes sentences of it,
`figures` draws, `page` and `text` write HTML and Markdown. No clock: the same store gives the same report.
"""
