"""
    Auto()

[`Tsit5`](@ref) until its step has been held down by stability, then the stiff method that suits the size of the
problem: [`Exprb53s3`](@ref) where an eigenproblem costs little beside the samples, [`Rodas5P`](@ref) where a
factorisation is cheap, and [`QNDF`](@ref) with a Krylov method for large nets. The first of them is taken from the
start, as its steps cost no more than those of Tsit5. The rules count steps, parameters and
samples and know no clock, so that a run can be repeated.
"""
struct Auto <: FlowMethod end

# Measured on the student with one hidden layer of k softplus units (P = 4k + 1), to T = 300 at 1e-6, one thread, seconds:
#
#      N     P   Rodas5P   Exprb53s3   QNDF   QNDF, Krylov
#    100    33    0.0043      0.0071  0.0022        0.0078
#    100   201     0.022       0.141   0.019         0.048
#    100   601      0.31           –       –         0.059
#   1000    33     0.015       0.013   0.012         0.062
#   1000   201      0.11        0.20   0.068          0.49
#   1000   601      0.85           –       –          0.44
#  10000    33      0.13       0.090   0.098             –
#
# where the errors of QNDF are those of Rodas5P at a tolerance ten times as large. At P² = 2N Exprb53s3 takes as long as
# the others to t = 1 and 0.8 of their time to t = 100 (P = 33, 65 and 101).
# QNDF with products at P = 33 and 201 is from an earlier run. In gradients (of which a Hessian costs
# 3.3 at P = 33 and 20 at 1201, a product with it 1.4) N = 10 000 and P = 33 take to a distance of 7e-7 Rodas5P 390,
# Exprb53s3 280, QNDF 350; to start with Tsit5 costs 230 more. Tsit5 before the switch: 1195 steps and 0.44 s where Rodas5P takes 40 and 0.030 s (N = 1000).
# Up to so many parameters, and one more for each so many samples, a Hessian is worth its sum and its factor.
const FACTORED, FACTORED_SAMPLES, FACTORED_EVER = 400, 5, 1500
function stiff_method(n::Int, samples::Int)
    n > min(FACTORED + samples ÷ FACTORED_SAMPLES, FACTORED_EVER) && return QNDF(linsolve=:krylov)
    return n^2 <= EIGENPROBLEM_PAYS * samples ? Exprb53s3() : Rodas5P()
end

# What counts of a net's data for the choice: nothing where a loss is no mean over samples.
sample_count(::AbstractNet) = 0
sample_count(net::Net) = n_samples(net)
sample_count(net::ConstrainedNet) = sample_count(net.net)

"How many steps stability must have held down: more where the stiff method costs more."
switch_after(n::Int) = 15 + min(n, 1000) ÷ 20

# Where an activation has kinks, auto goes back to Tsit5 if the stiff method's steps, many of which end at kinks, are
# not worth their price. Without what both spend at kinks, about as much as a step of Tsit5 and a half, a step of
# Rodas5P took as long as 3, 5 and 13 of Tsit5 with P = 24, 41 and 151 and 40 samples.
steps_worth(n::Int) = 1 + n / 28
const STIFF_TRIAL = 32         # steps

register!(FLOW_METHODS, "auto", Auto(),
          "the cheapest of the others that suits the problem: explicit until stiffness shows, then stiff";
          when="first: Exprb53s3 where P² ≤ $(EIGENPROBLEM_PAYS)N; else Tsit5, then Rodas5P, or QNDF beyond " *
               "$FACTORED + N/$FACTORED_SAMPLES (at most $FACTORED_EVER) parameters")
