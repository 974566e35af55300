# Branches of critical points of a loss that depends on a number: pseudo-arclength continuation with the exact Hessian.
#
# A branch is a curve of z = (θ, ν) with F(z) = ∇L(θ; μ) = 0, where ν = w μ and the weight w makes the range of μ as
# long as 1 + ‖θ‖ at the start (Keller, in Applications of Bifurcation Theory, 1977; Allgower and Georg, Introduction
# to Numerical Continuation Methods, 2003, ch. 2, 6, 8). H = ∂F/∂θ is symmetric: its eigenvalues tell the kind of each
# point, and where one changes sign there is a fold, where μ turns back, or a branch point, where it does not.

"A point of a branch: z, with loss, ‖∇L‖_∞, eigenvalues and eigenvectors of H, ∂∇L/∂ν, and the unit tangent."
struct Place
    z::Vector{Float64}
    loss::Float64
    gnorm::Float64
    λ::Vector{Float64}
    V::Matrix{Float64}
    drift::Vector{Float64}
    tangent::Vector{Float64}
    τ::Float64                  # up to which eigenvalues are zero
end
index(p::Place) = count(<(-p.τ), p.λ)

"""
    SpecialPoint

A "fold" or "branch point": `parameter` μ, `x`, `loss`; the `eigenvalue` that changes sign, as computed there, and its
`kernel`; how many change sign together (`multiplicity`); on which `branch` it was found, counted from 1; and whether
Newton's method `converged` to it (else it was only enclosed).
"""
struct SpecialPoint
    kind::String
    parameter::Float64
    x::Vector{Float64}
    loss::Float64
    eigenvalue::Float64
    kernel::Vector{Float64}
    multiplicity::Int
    branch::Int
    converged::Bool
end

"""
    Branch

Its points, in order: `parameter` μ (M), `x` (P×M), `loss`, `gnorm`, `eigenvalues` (P×M, ascending), `index`, and
`arclength` (of θ and scaled μ). `began` and `ended` say why there are no more points at either end; `parent` is the
number of the branch point that it comes from, or 0.
"""
mutable struct Branch
    parameter::Vector{Float64}
    x::Matrix{Float64}
    loss::Vector{Float64}
    gnorm::Vector{Float64}
    eigenvalues::Matrix{Float64}
    index::Vector{Int}
    arclength::Vector{Float64}
    began::String
    ended::String
    parent::Int
end

"""
    Followed

What [`follow`](@ref) found: `branches`, `points`, how many of each there are, and whether it `finished` before time ran
out or somebody stopped it.
"""
struct Followed
    branches::Vector{Branch}
    points::Vector{SpecialPoint}
    n_branches::Int
    n_points::Int
    finished::Bool
end
Base.show(io::IO, f::Followed) = print(io, "Followed(", length(f.branches), " branches, ",
    count(p -> p.kind == "fold", f.points), " folds, ", count(p -> p.kind != "fold", f.points), " branch points)")

"What all parts of a continuation share. `null` eigenvalues are zero at the start, by symmetries: they stay so."
struct Continuation{F<:Family}
    family::F
    bounds::NTuple{2,Float64}
    weight::Float64
    null::Int
    max_step::Float64
    H::Matrix{Float64}
    g::Vector{Float64}
end

"Least-norm solution of A δ = r, where singular values below `cut` count as zero."
function solve_bordered(A::Matrix, r::Vector, null::Int, cut::Float64)
    if null == 0
        F = lu(A; check=false)
        issuccess(F) && return F \ r
    end
    F = svd(A)
    c = F.U' * r
    for i in eachindex(c)
        c[i] = F.S[i] > max(cut, 1e-11 * F.S[1]) ? c[i] / F.S[i] : 0.0
    end
    return F.V * c
end

"Gradient, Hessian and drift (by ν) at z; returns the loss and the drift."
function derivatives_at!(c::Continuation, z::Vector)
    θ = z[1:end-1]
    place!(c.family, z[end] / c.weight)
    value = value_and_gradient!(c.g, c.family, θ)
    hessian!(c.H, c.family, θ)
    return value, drift!(similar(θ), c.family, θ) ./ c.weight
end

"""
    correct(c, z, n) -> z or nothing, iterations

Newton's method from z to F = 0 in the plane through z with normal `n`. A step of relative length 1e-9 is the last:
what is left is its square.
"""
function correct(c::Continuation, z::Vector, n::Vector)
    x, last = copy(z), Inf
    for k in 1:12
        _, drift = derivatives_at!(c, x)
        all(isfinite, c.H) && all(isfinite, c.g) || return nothing, k
        # Along a symmetry the Hessian is as small as the gradient: that is no direction for a step.
        δ = solve_bordered([c.H drift; n'], [c.g; dot(n, x - z)], c.null, 10 * norm(c.g) / (1 + norm(x)))
        x -= δ
        size = norm(δ) / (1 + norm(x))
        isfinite(size) && size <= 2last || return nothing, k
        size <= 1e-9 && return x, k
        last = size
    end
    return nothing, 12
end

"The place at z; its tangent has a positive product with `before`."
function place_at(c::Continuation, z::Vector, before::Vector)
    value, drift = derivatives_at!(c, z)
    gnorm = Float64(supnorm(c.g))
    F = eigenpairs(c.H)
    t = solve_bordered([c.H drift; before'], [zero(drift); 1.0], c.null, 10 * norm(c.g) / (1 + norm(z)))
    τ = noise(c.family, z[1:end-1], Float64(maximum(abs, F.values)))[1]
    return Place(z, value, gnorm, F.values, F.vectors, drift, t / norm(t), τ)
end

"Position of the eigenvalue at `p` that changes sign next to index `n`; nulls by symmetry are passed over."
function critical_eigenvalue(c::Continuation, p::Place, n::Int)
    c.null == 0 && return n + 1
    return p.λ[n+1] < -p.τ ? n + 1 : n + 1 + c.null
end
"Position of the smallest eigenvalue that is not null by symmetry."
smallest_eigenvalue(c::Continuation, p::Place) = sortperm(abs.(p.λ))[c.null+1]

# ---- folds and branch points ----------------------------------------------------------------------------------------

"The derivative of H φ along v in θ and y in μ, `D[H φ](v, y)`, by central differences of exact products."
function turning(c::Continuation, θ, φ, v, y)
    h = eps()^(1 / 3) * (1 + norm(θ)) / max(norm(v), floatmin())
    along = (hvp(c.family, θ + h * v, φ) - hvp(c.family, θ - h * v, φ)) / 2h
    return iszero(y) ? along : along + y * drift_hvp(c.family, θ, φ)
end

"""
    find_special(c, z, φ, fold) -> z, λ, φ, v, converged

Newton's method for a fold, ∇L = 0 and λ = 0, or a branch point, ∇L + βφ = 0, λ = 0, φᵀ ∂∇L/∂μ = 0 in (θ, ν, β), with
λ and φ the eigenpair of H nearest to the given φ. Both systems are regular at simple folds and branch points
(Griewank and Reddien, SIAM Journal on Numerical Analysis 21, 1984; Allgower and Georg, ch. 8). Rows of third
derivatives in the Jacobian are differences of exact products, which changes the way of the iteration and not its end.
v is the solution of H v = −∂∇L/∂μ across φ.
"""
function find_special(c::Continuation, z::Vector, φ::Vector, fold::Bool)
    x, β, P, last = copy(z), 0.0, length(φ), Inf
    λ, v = NaN, zero(φ)
    for k in 1:15
        _, drift = derivatives_at!(c, x)
        all(isfinite, c.H) && all(isfinite, c.g) || break
        E = eigenpairs(c.H)
        λ, φ = nearest_pair(E, φ)
        j = findfirst(isequal(λ), E.values)
        θ, ∂ = x[1:P], drift .* c.weight
        others = [i for i in sortperm(abs.(E.values); rev=true)[1:P-c.null] if i != j]
        v = -(E.vectors[:, others] * ((E.vectors[:, others]' * ∂) ./ E.values[others]))
        Hφ = drift_hvp(c.family, θ, φ)
        rows, values = [turning(c, θ, φ, φ, 0.0)' dot(φ, Hφ)/c.weight 0.0], [λ]
        if !fold
            slope = dot(φ, drift_slope(c.family, θ)) + dot(v, Hφ)
            rows = [rows; turning(c, θ, φ, v, 1.0)' slope/c.weight 0.0]
            push!(values, dot(φ, ∂))
        end
        A, r = [c.H drift φ; rows], [c.g + β * φ; values]
        fold && (A = A[:, 1:P+1]; r = [c.g; λ])
        δ = solve_bordered(A, r, c.null, 10 * norm(c.g) / (1 + norm(x)))
        x -= δ[1:P+1]
        fold || (β -= δ[P+2])
        size = norm(δ) / (1 + norm(x))
        isfinite(size) && size <= 4last || break
        if size <= 1e-9                                 # the last step: the pair is that of where it leads
            derivatives_at!(c, x)
            λ, φ = nearest_pair(eigenpairs(c.H), φ)
            return x, λ, φ, v, true
        end
        last = size
    end
    return x, λ, φ, v, false
end

"""
    find_multiple(c, z, Φ) -> z, λ, φ, v, converged

As `find_special` where several eigenvalues vanish at once, with the eigenvectors Φ (columns) near the point z: Newton's
method for ∇L + Φβ = 0, Φᵀ(θ − θ₀) = 0, which hold the kernel's directions, and the mean of the eigenvalues, which is
zero. It has `converged` if each of them is.
"""
function find_multiple(c::Continuation, z::Vector, Φ::Matrix)
    x, β, last, (P, m) = copy(z), zeros(size(Φ, 2)), Inf, size(Φ)
    fail = (z, NaN, Φ[:, 1], zeros(P), false)
    for k in 1:15
        _, drift = derivatives_at!(c, x)
        all(isfinite, c.H) && all(isfinite, c.g) || return fail
        E = eigenpairs(c.H)
        near = partialsortperm(vec(sum(abs2, Φ' * E.vectors; dims=1)), 1:m; rev=true)
        θ, λ = x[1:P], E.values[near]
        row = zeros(1, P + 1 + m)
        for k in near
            φ = E.vectors[:, k]
            row[1:P] .+= turning(c, θ, φ, φ, 0.0) ./ m
            row[P+1] += dot(φ, drift_hvp(c.family, θ, φ)) / (c.weight * m)
        end
        A = [c.H drift Φ; Φ' zeros(m, 1 + m); row]
        δ = solve_bordered(A, [c.g + Φ * β; Φ' * (θ - z[1:P]); sum(λ) / m], c.null, 10 * norm(c.g) / (1 + norm(x)))
        x -= δ[1:P+1]
        β -= δ[P+2:end]
        size = norm(δ) / (1 + norm(x))
        isfinite(size) && size <= 4last || return fail
        if size <= 1e-9
            converged = kernel_dimension(c, x) >= m && norm(β) <= 1e-9 * (1 + abs(loss(c.family, x[1:P])))
            return x, sum(λ) / m, E.vectors[:, near[1]], zeros(P), converged
        end
        last = size
    end
    return fail
end

"The eigenvectors of the eigenvalues that change sign between two places, at that where they are nearer to zero."
function critical_vectors(c::Continuation, a::Place, b::Place)
    n, many = min(index(a), index(b)), abs(index(a) - index(b))
    p, q = critical_eigenvalue(c, a, n), critical_eigenvalue(c, b, n)
    return abs(a.λ[p]) <= abs(b.λ[q]) ? a.V[:, p:p+many-1] : b.V[:, q:q+many-1]
end

"The eigenvalue whose vector is nearest to φ, and that vector, in the direction of φ."
function nearest_pair(E, φ::Vector)
    overlap = E.vectors' * φ
    j = argmax(abs.(overlap))
    return E.values[j], E.vectors[:, j] .* sign(overlap[j])
end

"""
    locate(c, a, b) -> kind, z, eigenvalue, φ, v, multiplicity, converged; or nothing

The fold or branch point between two neighbouring places, if there is one. Eigenvalues that change sign and a tangent
that turns back in μ make a fold; one of the two alone a branch point (the tangent alone where a branch is met from
its arm).
"""
function locate(c::Continuation, a::Place, b::Place)
    kind = what_between(a, b)
    kind == "" && return nothing
    many, distance = abs(index(a) - index(b)), norm(b.z - a.z)
    multiplicity = max(many, 1)
    for attempt in 1:30
        fa, fb, φ = test_function(c, a, b)
        s = fa == fb ? 0.5 : clamp(fa / (fa - fb), 0.0, 1.0)
        guess = a.z + s * (b.z - a.z)
        z, λ, φ, v, converged = many > 1 ? find_multiple(c, guess, critical_vectors(c, a, b)) :
            find_special(c, guess, φ, kind == "fold")
        converged && norm(z - guess) <= 2 * norm(b.z - a.z) + 1e-7 * (1 + norm(z)) &&
            return kind, z, λ, φ, v, max(multiplicity, kernel_dimension(c, z)), true
        norm(b.z - a.z) <= 1e-6 * distance && break
        n = (b.z - a.z) / norm(b.z - a.z)
        z, _ = correct(c, (a.z + b.z) / 2, n)
        z === nothing && break
        m = place_at(c, z, a.tangent)
        what_between(a, m) == kind ? (b = m) : (a = m)
        what_between(a, b) == kind || break
    end
    _, _, φ = test_function(c, a, b)
    return kind, (a.z + b.z) / 2, NaN, φ, zero(φ), multiplicity, false
end

"How many eigenvalues of H are zero at z beside those that are by symmetry, to what Newton's method leaves of them."
kernel_dimension(c::Continuation, z::Vector) = size(kernel_at(c, z), 2) - c.null
function kernel_at(c::Continuation, z::Vector)
    derivatives_at!(c, z)
    E = eigenpairs(c.H)
    return E.vectors[:, abs.(E.values).<=1e-9*maximum(abs, E.values)]
end

function what_between(a::Place, b::Place)
    turns = a.tangent[end] * b.tangent[end] < 0
    changes = index(a) != index(b)
    return turns && changes ? "fold" : turns || changes ? "branch point" : ""
end

"A function at both places that is zero at the special point between, and the eigenvector that belongs to it."
function test_function(c::Continuation, a::Place, b::Place)
    i, j = index(a), index(b)
    i == j && (k = smallest_eigenvalue(c, a); return a.tangent[end], b.tangent[end], a.V[:, k])
    n = min(i, j)
    p, q = critical_eigenvalue(c, a, n), critical_eigenvalue(c, b, n)
    return a.λ[p], b.λ[q], abs(a.λ[p]) <= abs(b.λ[q]) ? a.V[:, p] : b.V[:, q]
end

"""
    branch_tangents(c, z, φ, v) -> unit vectors

The two directions (θ̇, ν̇) = x (φ, 0) + y (v, w) in which branches pass through a simple branch point: the roots of
`x² D³L[φ,φ,φ] + 2xy φᵀD[Hφ](v, 1) + y² φᵀD²F(v, 1)²` (Keller's algebraic bifurcation equation); none for an isolated
point.
"""
function branch_tangents(c::Continuation, z::Vector, φ::Vector, v::Vector)
    θ, μ = z[1:end-1], z[end] / c.weight
    place!(c.family, μ)
    α, β = dot(φ, turning(c, θ, φ, φ, 0.0)), dot(φ, turning(c, θ, φ, v, 1.0))
    h = eps()^(1 / 3) * (1 + norm(θ)) / (1 + norm(v))
    function first_derivative(s)
        place!(c.family, μ + s)
        x = θ + s * v
        value = dot(φ, hvp(c.family, x, v)) + dot(φ, drift!(similar(θ), c.family, x))
        place!(c.family, μ)
        return value
    end
    γ = (first_derivative(h) - first_derivative(-h)) / 2h
    D = β^2 - α * γ
    D > 1e-12 * (β^2 + abs(α * γ)) || return Vector{Float64}[]
    q = -(β + (β < 0 ? -1 : 1) * sqrt(D))
    return map(((q, α), (γ, q))) do (x, y)
        d = [x * φ + y * v; y * c.weight]
        d / norm(d)
    end
end

# ---- following -------------------------------------------------------------------------------------------------

mutable struct Exploration{F}
    c::Continuation{F}
    branches::Vector{Branch}
    points::Vector{SpecialPoint}
    used::Vector{Vector{Vector{Float64}}}       # directions in which branches leave each point, in z, that are known
    waiting::Vector{Tuple{Int,Vector{Float64}}} # number of a branch point, direction
    limits::NamedTuple
    monitor::Monitor
    count::Int
end

"""
    follow(family, θ; bounds, max_step = 0.05, max_points = 1000, max_branches = 20, maxtime = Inf, monitor = Monitor())
        -> Followed

The branches of critical points of a [`Family`](@ref) through θ at `family.μ`, both ways, and those that leave them at
branch points (where several eigenvalues vanish those that are found), within `bounds` = (lowest, highest) of μ. Steps
are at most `max_step`·(1 + ‖z‖) long, and so short that the tangent turns by less than 14° and one eigenvalue at most
changes sign.
"""
function follow(family::Family, θ::AbstractVector; bounds=(0.0, 1.0), max_step::Real=0.05, max_points::Int=1000,
                max_branches::Int=20, maxtime::Real=Inf, monitor::Monitor=Monitor())
    lo, hi = Float64.(bounds)
    lo < hi && lo <= family.μ <= hi ||
        throw(ArgumentError("bounds is ($lo, $hi); it must ascend and contain the start, $(family.μ)"))
    θ = Vector{Float64}(θ)
    P, weight = length(θ), (1 + norm(θ)) / (hi - lo)
    point = classified_fixed_point(place!(family, family.μ), θ)
    c = Continuation(family, (lo, hi), weight, point.nullity, Float64(max_step), zeros(P, P), zeros(P))
    start = [θ; family.μ * weight]
    upwards = [zeros(P); 1.0]
    z, _ = correct(c, start, upwards)
    z !== nothing && norm(z - start) <= 0.1 * (1 + norm(start)) ||
        throw(ArgumentError("the branch cannot be followed from here: p is at a fold or a branch point"))
    limits = (points=max_points, branches=max_branches, time=Float64(maxtime))
    search = Exploration(c, Branch[], SpecialPoint[], Vector{Vector{Float64}}[], Tuple{Int,Vector{Float64}}[], limits,
                         start!(monitor, maxtime), 0)
    watch!(family, monitor)
    finished = try
        first_branch!(search, place_at(c, z, upwards))
        further_branches!(search)
        true
    catch interruption
        interruption isa Interrupted || rethrow()
        false
    finally
        watch!(family, nothing)
    end
    return Followed(search.branches, search.points, length(search.branches), length(search.points), finished)
end

function first_branch!(s::Exploration, start::Place)
    back = Place(start.z, start.loss, start.gnorm, start.λ, start.V, start.drift, -start.tangent, start.τ)
    forward, backward, ended, began = Place[start], Place[back], Ref("interrupted"), Ref("interrupted")
    try
        advance!(s, forward, ended, 1)
        ended[] == "closed" ? (began[] = "closed") : advance!(s, backward, began, 1)
    finally
        push!(s.branches, gathered(s.c, [reverse(backward); forward[2:end]], began[], ended[], 0))
    end
    return nothing
end

function further_branches!(s::Exploration)
    while !isempty(s.waiting) && length(s.branches) < s.limits.branches
        number, d = popfirst!(s.waiting)
        any(u -> dot(u, d) > 0.9, s.used[number]) && continue
        push!(s.used[number], d)
        z = [s.points[number].x; s.points[number].parameter * s.c.weight]
        first = step_off(s.c, z, d)
        first === nothing && continue
        here = place_at(s.c, z, d)
        here = Place(z, here.loss, here.gnorm, here.λ, here.V, here.drift, d, here.τ)
        places, ended = Place[here, first], Ref("interrupted")
        try
            advance!(s, places, ended, length(s.branches) + 1)
        finally
            push!(s.branches, gathered(s.c, places, "branch point", ended[], number))
        end
    end
    return nothing
end

"The first place of a branch that leaves `z` in direction d."
function step_off(c::Continuation, z::Vector, d::Vector)
    h = c.max_step * (1 + norm(z)) / 2
    for attempt in 1:16
        x, _ = correct(c, z + h * d, d)
        if x !== nothing && norm(x - z - h * d) <= h / 2
            p = place_at(c, x, d)
            dot(p.tangent, d) > 0.9 && return p
        end
        h /= 2
    end
    return nothing
end

"Add places to a branch from its last one on, until something ends it, and the special points on the way."
function advance!(s::Exploration, places::Vector{Place}, ended::Ref{String}, number::Int)
    c, start = s.c, places[1]
    P = length(start.z) - 1
    h = c.max_step * (1 + norm(start.z)) / 4
    while true
        p = places[end]
        length(places) >= s.limits.points && (ended[] = "max_points"; return nothing)
        elapsed(s.monitor) > s.limits.time && throw(Interrupted(Stop.maxtime))
        s.count += 1
        reason = poll!(s.monitor, :minimize, s.count, p.z[end] / c.weight, p.loss, p.gnorm, nothing)
        reason == Stop.running || throw(Interrupted(reason))
        largest, least = c.max_step * (1 + norm(p.z)), 1e-8 * (1 + norm(p.z))
        h = min(h, largest)
        for (bound, side) in zip(c.bounds, (-1, 1))
            abs(p.z[end] / c.weight - bound) <= 1e-12 * (1 + abs(bound)) && side * p.tangent[end] > 0 &&
                (ended[] = "bounds"; return nothing)
        end
        q, iterations = nothing, 0
        while true
            h < least && (ended[] = "stuck"; return nothing)
            z, iterations = correct(c, p.z + h * p.tangent, p.tangent)
            q = z === nothing ? nothing : place_at(c, z, p.tangent)
            fine = q !== nothing && dot(p.tangent, q.tangent) > 0.97 && norm(q.z - p.z) <= 1.5h
            # Several eigenvalues at once: one after the other, or all at one point.
            fine && (abs(index(p) - index(q)) <= 1 || h < 1e-4 * largest) && break
            h /= 2
        end
        at = q.z[end] / c.weight
        bound = at < c.bounds[1] ? c.bounds[1] : at > c.bounds[2] ? c.bounds[2] : NaN
        if !isnan(bound)
            inside = p.z[end] / c.weight
            e = [zeros(P); 1.0]
            z, _ = correct(c, [(p.z + (bound - inside) / (at - inside) * (q.z - p.z))[1:P]; bound * c.weight], e)
            z === nothing && (h /= 2; continue)
            q = place_at(c, z, p.tangent)
        end
        found = locate(c, p, q)
        known = found === nothing ? 0 : register_point!(s, found, p, q, number)
        if known > 0
            last = s.points[known]
            push!(places, place_at(c, [last.x; last.parameter * c.weight], p.tangent))
            ended[] = "known branch"
            return nothing
        end
        push!(places, q)
        isnan(bound) || (ended[] = "bounds"; return nothing)
        norm(q.z[1:P]) > 1e3 * (1 + norm(start.z[1:P])) && (ended[] = "diverging"; return nothing)
        if length(places) > 4 && passes(places[1], p, q)
            push!(places, places[1])
            ended[] = "closed"
            return nothing
        end
        turn = dot(p.tangent, q.tangent)
        h *= iterations <= 4 && turn > 0.995 ? 1.5 : turn < 0.985 ? 0.7 : 1.0
    end
end

"Whether the way from p to q passes the place `start` in its direction."
function passes(start::Place, p::Place, q::Place)
    d = q.z - p.z
    a = dot(start.z - p.z, d) / dot(d, d)
    return 0 < a <= 1 && norm(start.z - p.z - a * d) <= 0.1 * norm(d) && dot(start.tangent, d) > 0.9 * norm(d)
end

"""
Note a fold or branch point, and the directions that leave it. The answer is its number if the branch goes on along one
that is known, else 0.
"""
function register_point!(s::Exploration, (kind, z, λ, φ, v, multiplicity, converged), p::Place, q::Place, number::Int)
    c, P = s.c, length(φ)
    along = (q.z - p.z) / norm(q.z - p.z)
    for (k, known) in enumerate(s.points)
        known.kind == kind || continue
        norm(z - [known.x; known.parameter * c.weight]) <= 1e-5 * (1 + norm(z)) || continue
        kind == "fold" && return 0
        any(u -> dot(u, along) > 0.9, s.used[k]) && return k
        append!(s.used[k], [along, -along])
        return 0
    end
    place!(c.family, z[end] / c.weight)
    push!(s.points, SpecialPoint(kind, z[end] / c.weight, z[1:P], loss(c.family, z[1:P]), λ, φ, multiplicity, number,
                                 converged))
    push!(s.used, [along, -along])
    if kind == "branch point" && converged && multiplicity == 1
        tangents = branch_tangents(c, z, φ, v)
        if !isempty(tangents)
            other = argmin([abs(dot(t, along)) for t in tangents])
            s.used[end] = [tangents[3-other], -tangents[3-other]]
            append!(s.waiting, [(length(s.points), tangents[other]), (length(s.points), -tangents[other])])
        end
    elseif kind == "branch point" && converged && c.null == 0
        append!(s.waiting, [(length(s.points), d) for d in directions_off(s, z, along)])
    end
    return 0
end

"""
    directions_off(exploration, z, along) -> unit vectors

Directions in which branches leave a point with a kernel of several dimensions, beside that of the branch `along` which
it was found on. The algebraic equations for them may be of any order, and have any number of solutions: Newton's method
looks for places of branches at a small distance, from all sums and differences of the vectors of a basis of the kernel,
of more than four of one or two, and from these with ±`along`. The basis is made of projections of unit vectors, the
longest first, so that it depends on the kernel alone. What other branches there may be is not found.
"""
function directions_off(e::Exploration, z::Vector, along::Vector)
    c, found = e.c, Vector{Float64}[]
    K = kernel_at(c, z)
    Φ = Matrix(qr(K * K', Val(true)).Q)[:, 1:size(K, 2)]
    for s in sign_patterns(size(Φ, 2)), t in -1:1
        elapsed(e.monitor) > e.limits.time && throw(Interrupted(Stop.maxtime))
        d = normalize([Φ * s; 0.0] + t * along)
        place = near_direction(c, z, d)
        place === nothing && continue
        off = normalize(place.z - z)
        abs(dot(off, along)) > 0.99 || any(u -> dot(u, off) > 0.99, found) || push!(found, off)
    end
    return found
end
function sign_patterns(m::Int)
    m <= 4 && return [collect(s) for s in Iterators.product(fill(-1:1, m)...) if any(!iszero, s)]
    pattern(i, a, j, b) = [a * (k == i) + b * (k == j) for k in 1:m]
    return [[pattern(i, a, i, 0) for i in 1:m for a in (-1, 1)];
            [pattern(i, a, j, b) for i in 1:m for j in i+1:m for a in (-1, 1) for b in (-1, 1)]]
end
"A place of a branch that leaves z, found from direction d at a distance of a few per cent or less."
function near_direction(c::Continuation, z::Vector, d::Vector)
    h = c.max_step * (1 + norm(z)) / 4
    for attempt in 1:6
        x, _ = correct(c, z + h * d, d)
        if x !== nothing && norm(x - z) <= 3h
            p = place_at(c, x, x - z)
            # Where Newton's matrix is singular the method may end where it is.
            p.gnorm <= 1e-6 * maximum(abs, p.λ) * norm(x - z) && dot(p.tangent, normalize(x - z)) > 0.95 && return p
        end
        h /= 3
    end
    return nothing
end

function gathered(c::Continuation, places::Vector{Place}, began, ended, parent)
    s = cumsum([0.0; [norm(places[k].z - places[k-1].z) for k in 2:length(places)]])
    x, λ = zeros(length(c.g), length(places)), zeros(length(c.g), length(places))
    for (k, p) in enumerate(places)
        x[:, k], λ[:, k] = p.z[1:end-1], p.λ
    end
    return Branch([clamp(p.z[end] / c.weight, c.bounds...) for p in places], x, [p.loss for p in places],
                  [p.gnorm for p in places], λ, [index(p) for p in places], s, began, ended, parent)
end
