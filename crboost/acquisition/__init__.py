"""What the microscope wrote: mdoc, movies, gain, and completeness of a tilt series."""
