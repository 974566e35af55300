"""
    Auto()

[`ExpAdams`](@ref) where there are more than two samples a parameter and the net is not large, with [`Rodas5P`](@ref)
or [`Exprb53s3`](@ref) after it where the flow creeps. Else [`Tsit5`](@ref) until its step has been held down by
stability, then the stiff method that suits the size of the problem: [`Rodas5P`](@ref) where a factorisation is cheap,
and [`QNDF`](@ref) with a Krylov method for large nets. Where activations have kinks it is Tsit5 first, too. The rules
count steps, parameters and samples and know no clock, so that a run can be repeated.
"""
struct Auto <: FlowMethod end

# Measured: CPU time in ms to distances of 1e-4, 1e-6 and 1e-8 from the end of the flow at t = 10 to 1000, one thread.
#
#                                           ExpAdams           Rodas5P             QNDF         Tsit5, Rodas5P or QNDF
# 2-8-1 softplus,   P = 33,   N = 100      0.73   1.05   1.5    0.70   1.05   2.5    0.82   1.3   –    0.80   1.05   2.0
# 2-8-1 softplus,   P = 33,   N = 10 000     13     17    26      22     46   121      28    44   –
# 3-8-1 tanh,       P = 41,   N = 500       1.7    2.4   3.2     2.4    4.2    11     2.3   3.8   –     2.6    3.4   7.5
# 2-6-6-1 tanh,     P = 67,   N = 400       5.0    6.9    10     9.5     19    48     4.6   7.7   –     6.6     11    19
# 2-50-1 softplus,  P = 201,  N = 1000       20     32    45      31     62   155      22    36   –      34     59   131
# 2-100-1 softplus, P = 401,  N = 1000       47     67   104      70    143   390      67   103   –      62     90   160
# 2-25-1 tanh,      P = 101,  N = 200       6.4    8.7    12     4.8    8.2    20     4.6   7.0   –     4.5    7.0    13
# 3-6-1 silu,       P = 31,   N = 40       0.89    1.3   1.8    0.57    1.1   3.0    0.64   1.0   –    0.54   0.73   1.4
# 3-30-1 tanh,      P = 151,  N = 50        8.5     11    15     3.8    6.9    14     4.9   6.4   –     3.0    4.4   6.8
#
# QNDF reaches none of the last distances at tolerances from 1e-9 on.

# Up to so many parameters, and one more for each so many samples, a Hessian is worth its sum and its factor.
const FACTORED, FACTORED_SAMPLES, FACTORED_EVER = 400, 5, 1500
# So many samples a parameter pay for the eigenproblems of ExpAdams.
const EIGENPROBLEM_PAYS = 2
function stiff_method(n::Int, samples::Int, kinked::Bool=false)
    n > min(FACTORED + samples ÷ FACTORED_SAMPLES, FACTORED_EVER) && return QNDF(linsolve=:krylov)
    # each kink would end the past of a multistep method
    kinked && return n^2 <= 2 * samples ? Exprb53s3() : Rodas5P()
    return samples > EIGENPROBLEM_PAYS * n ? ExpAdams() : Rodas5P()
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

# On the way to a minimum at infinity the Hessian changes as quickly as the rest: ExpAdams took 24 000 steps to double
# the time, Rodas5P 200 of five times the price. Elsewhere a doubling took it at most some 100. To t = 1e10 with 10
# 000 samples and P = 33 Exprb53s3, with fewer evaluations, takes 0.4 of Rodas5P's time; with 100 samples and P = 17,
# in a channel, 4 times as long.
const CREEPING = 500           # steps
creeping_method(n::Int, samples::Int) = 8 * n^2 <= samples ? Exprb53s3() : Rodas5P()

register!(FLOW_METHODS, "auto", Auto(),
          "the cheapest of the others that suits the problem";
          when="first: ExpAdams where N > $(EIGENPROBLEM_PAYS)P; else Tsit5, then Rodas5P, or QNDF beyond " *
               "$FACTORED + N/$FACTORED_SAMPLES (at most $FACTORED_EVER) parameters")
