# Levenberg and Marquardt's method: the trust region with the Gauss–Newton matrix as its model.

"""
    LevenbergMarquardt(; initial_radius = 0.1, corrections = 2, momentum = true)

Levenberg and Marquardt's method as a trust region (Moré, Lecture Notes in Mathematics 630 (1978) 105) on the
Gauss–Newton matrix plus the Hessian of the regularisers, which is accumulated block by block of samples: no N×P
Jacobian is formed. Never indefinite, and quadratically convergent where the minimum is zero; linearly where residuals
remain, and there [`NewtonTrustRegion`](@ref) ends sooner. The options, and the memory, are those of
`NewtonTrustRegion`. Also for `loss = "nll"`, with the generalised Gauss–Newton matrix (Schraudolph, Neural Computation
14 (2002) 1723).
"""
struct LevenbergMarquardt <: TrustRegion
    initial_radius::Float64
    corrections::Int
    momentum::Bool
end
LevenbergMarquardt(; options...) =
    (m = NewtonTrustRegion(; options...); LevenbergMarquardt(m.initial_radius, m.corrections, m.momentum))
method_name(::LevenbergMarquardt) = "LevenbergMarquardt"

gauss_newton!(G, net::AbstractNet, x) =
    throw(ArgumentError("LevenbergMarquardt needs a Gauss–Newton matrix, and $(nameof(typeof(net))) has none: choose " *
                        "NewtonTrustRegion instead."))
add_penalty!(G, net::AbstractNet, x) = G
add_penalty!(G, net::Net, x) = add_penalty_hessian!(G, net.regulariser, x)
function add_penalty!(G::Matrix{T}, net::ConstrainedNet{T}, x) where {T}
    penalty = mirror!(add_penalty!(fill!(whole_matrix!(net), zero(T)), net.net, embed!(net, x)))
    return add_congruence!(G, net.constraint, penalty, net.v)
end

function model_matrix!(G::Matrix{T}, objective::Objective{T}, x::Vector{T}, ::LevenbergMarquardt) where {T}
    objective.nhev += 1
    gauss_newton!(G, objective.net, x)
    add_penalty!(G, objective.net, x)
    return G
end

"The model is never indefinite: there is nothing to ask."
at_saddle!(::TrustRegionState{T,LevenbergMarquardt}, ::Objective{T}) where {T} = false

register!(MINIMIZE_METHODS, "LevenbergMarquardt", LevenbergMarquardt(), "a trust region on the Gauss–Newton matrix";
          matrices=3, when="losses near zero: the Gauss–Newton matrix is the Hessian there")
