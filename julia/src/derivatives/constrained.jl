"""
    ConstrainedNet(net, constraint)

The loss of `net` on the points θ = B z + c of a [`Constraint`](@ref), as a function of z: a net like any other for
solvers and tools, with the gradient Bᵀ∇L, the Hessian Bᵀ∇²L B and products with it.

    julia> net = Net(layers = ((2, identity, false), (1, identity, false)), input = [1.0 2.0], target = [2.0 4.0]);

    julia> tied = ConstrainedNet(net, Constraint(zeros(4); tie = [[1, 2], [3, 4]]));

    julia> loss(tied, [1.0, 1.0]) == loss(net, [1.0, 1.0, 1.0, 1.0])
    true
"""
mutable struct ConstrainedNet{T} <: AbstractNet{T}
    net::AbstractNet{T}
    constraint::Constraint{T}
    value::Base.RefValue{T}
    θ::Vector{T}
    g::Vector{T}
    v::Vector{T}
    H::Matrix{T}              # of `net`, 0×0 until the first
end

function ConstrainedNet(net::AbstractNet{T}, constraint::Constraint) where {T}
    P = n_params(net)::Int
    n_params(constraint) == P || throw(DimensionMismatch(
        "the constraint is one of $(n_params(constraint)) parameters, the net has $P"))
    return ConstrainedNet{T}(net, Constraint{T}(constraint), Ref(zero(T)), zeros(T, P), zeros(T, P), zeros(T, P),
                          zeros(T, 0, 0))
end

n_params(r::ConstrainedNet) = n_coordinates(r.constraint)
n_samples(r::ConstrainedNet) = n_samples(r.net)
n_features(r::ConstrainedNet) = n_features(r.net)
n_outputs(r::ConstrainedNet) = n_outputs(r.net)
check_data(r::ConstrainedNet) = check_data(r.net)
watch!(r::ConstrainedNet, monitor) = watch!(r.net, monitor)
Base.show(io::IO, r::ConstrainedNet) = print(io, "ConstrainedNet(", r.net, "; ", n_params(r), " coordinates)")

innermost(net::AbstractNet) = net
innermost(r::ConstrainedNet) = innermost(r.net)
"`net` with another innermost net."
around(inner::AbstractNet, ::AbstractNet) = inner
around(inner::AbstractNet, r::ConstrainedNet) = ConstrainedNet(around(inner, r.net), r.constraint)

"The parameters θ of the innermost net at the parameters of `net`; valid until the next evaluation."
full(net::AbstractNet, θ) = θ
full(r::ConstrainedNet, z) = full(r.net, embed!(r, z))

"The derivatives by the parameters of `net`, into `g`, from those by the parameters of the innermost net."
pull_back!(g::Vector, ::AbstractNet, v::Vector) = copyto!(g, v)
pull_back!(g::Vector, r::ConstrainedNet, v::Vector) = pull_back!(g, r.constraint, pull_back!(r.g, r.net, v))

function embed!(r::ConstrainedNet{T}, z::Vector{T}) where {T}
    check_params(r, z)
    return embed!(r.θ, r.constraint, z)
end

loss(r::ConstrainedNet{T}, z) where {T} = loss(r.net, embed!(r, z))::T
data_loss(r::ConstrainedNet, z) = data_loss(r.net, embed!(r, z))
predict(r::ConstrainedNet, z) = predict(r.net, embed!(r, z))
predict(r::ConstrainedNet, z, X::AbstractMatrix) = predict(r.net, embed!(r, z), X)
random_params(seed::Integer, r::ConstrainedNet; options...) =
    coordinates(r.constraint, random_params(seed, r.net; options...))
on(r::ConstrainedNet, data...; options...) = ConstrainedNet(on(r.net, data...; options...), r.constraint)

function value_and_gradient!(g::Vector{T}, r::ConstrainedNet{T}, z::Vector{T}) where {T}
    check_params(r, g)
    value_and_gradient_into!(r.value, r.g, r.net, embed!(r, z))
    pull_back!(g, r.constraint, r.g)
    return r.value[]
end

function hvp!(y::Vector{T}, r::ConstrainedNet{T}, z::Vector{T}, v::Vector{T}) where {T}
    check_params(r, y)
    check_params(r, v)
    hvp!(r.g, r.net, embed!(r, z), image!(r.v, r.constraint, v))
    return pull_back!(y, r.constraint, r.g)
end

"The P×P matrix of `net` that quadratic forms come from."
function whole_matrix!(r::ConstrainedNet{T}) where {T}
    isempty(r.H) && (r.H = zeros(T, length(r.θ), length(r.θ)))
    return r.H
end

function check_square(H, net::AbstractNet)
    n = n_params(net)
    size(H) == (n, n) || throw(DimensionMismatch("H is $(size(H)), this net has $n parameters"))
    return nothing
end

function hessian!(H::Matrix{T}, r::ConstrainedNet{T}, z::Vector{T}) where {T}
    check_square(H, r)
    hessian!(whole_matrix!(r), r.net, embed!(r, z))
    return mirror!(add_congruence!(fill!(H, zero(T)), r.constraint, r.H, r.v))
end

gauss_newton(r::ConstrainedNet{T}, z::Vector{T}) where {T} = gauss_newton!(zeros(T, n_params(r), n_params(r)), r, z)
function gauss_newton!(G::Matrix{T}, r::ConstrainedNet{T}, z::Vector{T}) where {T}
    check_square(G, r)
    gauss_newton!(whole_matrix!(r), r.net, embed!(r, z))
    return mirror!(add_congruence!(fill!(G, zero(T)), r.constraint, r.H, r.v))
end

"Derivatives of the outputs by the coordinates, O × N × n."
function jacobian(r::ConstrainedNet{T}, z::Vector{T}) where {T}
    J = jacobian(r.net, embed!(r, z))
    return reshape(reshape(J, :, size(J, 3)) * Matrix(r.constraint), size(J, 1), size(J, 2), :)
end

function data_value_and_gradient(r::ConstrainedNet{T}, z::Vector{T}) where {T}
    value, g = data_value_and_gradient(r.net, embed!(r, z))
    return value, pull_back!(similar(z), r.constraint, g)
end

# ---- solvers in θ --------------------------------------------------------------------------------------------------

"""
    within(solve, net, constraint, θ, monitor)

`solve(constrained net, z)` from the nearest point to θ that the constraint allows, and its result as one in θ; what the
monitor shows is θ, too.
"""
function within(solve, net::AbstractNet{T}, constraint::Constraint, θ, monitor::Monitor) where {T}
    inner = ConstrainedNet(net, constraint)
    report = monitor.report
    report === nothing || (monitor.report = (phase, iteration, t, loss, gnorm, z) ->
        report(phase, iteration, t, loss, gnorm, z === nothing ? nothing : embed(inner.constraint, z)))
    try
        return lifted(solve(inner, coordinates(inner.constraint, θ)), inner.constraint)
    finally
        monitor.report = report
    end
end
